"""Everything that touches video files or streams: read, write, command line."""

/* A CUDA driver without a device behind it: the device's memory is the host's, and all work is done at once.
   test_cuda_memory.py builds it as libcuda.so.1, so that NVIDIA's Python package is called for real. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef uint64_t Pointer;
enum { OK, OUT_OF_MEMORY = 2, NO_DEVICE = 100, INVALID_DEVICE = 101, NOT_FOUND = 500, LIMIT = 1 << 26 };
static int live, depth; /* things made and not given back; contexts pushed and not popped */

int fake_live(void) { return live; }
int fake_depth(void) { return depth; }
static int make(void **thing, size_t size) {
    if (size > LIMIT) return OUT_OF_MEMORY;
    *thing = aligned_alloc(256, (size + 255) / 256 * 256);
    live++;
    return OK;
}
static int end(void *thing) { free(thing); live--; return OK; }

int cuInit(unsigned flags) { return getenv("FAKE_NO_DEVICE") ? NO_DEVICE : OK; }
int cuDriverGetVersion(int *version) { *version = 12040; return OK; }
int cuDeviceGetCount(int *count) { *count = 1; return OK; }
int cuDeviceGet(int *device, int index) { *device = index; return index ? INVALID_DEVICE : OK; }
int cuDeviceGetName(char *name, int size, int device) { snprintf(name, size, "Fake GPU"); return OK; }
int cuDeviceGetAttribute(int *value, int attribute, int device) {
    *value = attribute == 75 ? 8 : attribute == 76 ? 6 : 0; /* the compute capability's two numbers */
    return OK;
}
int cuDevicePrimaryCtxRetain(void **context, int device) { return make(context, 1); }
int cuDevicePrimaryCtxRelease_v2(int device) { live--; return OK; }
int cuCtxPushCurrent_v2(void *context) { depth++; return OK; }
int cuCtxPopCurrent_v2(void **context) { *context = &live; depth--; return OK; }
int cuMemAlloc_v2(void **pointer, size_t size) { return make(pointer, size); }
int cuMemFree_v2(Pointer pointer) { return end((void *)pointer); }
int cuMemHostAlloc(void **pointer, size_t size, unsigned flags) { return make(pointer, size); }
int cuMemFreeHost(void *pointer) { return end(pointer); }
int cuMemcpyHtoDAsync_v2(Pointer to, const void *from, size_t size, void *stream) {
    memcpy((void *)to, from, size);
    return OK;
}
int cuMemcpyDtoHAsync_v2(void *to, Pointer from, size_t size, void *stream) {
    memcpy(to, (void *)from, size);
    return OK;
}
int cuMemcpyDtoDAsync_v2(Pointer to, Pointer from, size_t size, void *stream) {
    memcpy((void *)to, (void *)from, size);
    return OK;
}
int cuStreamCreate(void **stream, unsigned flags) { return flags == 1 ? make(stream, 1) : NOT_FOUND; }
int cuStreamDestroy_v2(void *stream) { return end(stream); }
int cuStreamSynchronize(void *stream) { return OK; }
int cuEventCreate(void **event, unsigned flags) { return flags == 3 ? make(event, 1) : NOT_FOUND; }
int cuEventDestroy_v2(void *event) { return end(event); }
int cuEventRecord(void *event, void *stream) { return OK; }
int cuEventSynchronize(void *event) { return OK; }
int cuStreamBeginCapture_v2(void *stream, int mode) { return mode == 1 ? OK : NOT_FOUND; }
int cuStreamEndCapture(void *stream, void **graph) { return make(graph, 1); }
int cuGraphInstantiateWithFlags(void **made, void *graph, unsigned long long flags) { return make(made, 1); }
int cuGraphDestroy(void *graph) { return end(graph); }
int cuGraphExecDestroy(void *graph) { return end(graph); }
int cuGraphLaunch(void *graph, void *stream) { return OK; }

/* how the package finds all of the above */
int cuGetProcAddress_v2(const char *name, void **function, int version, uint64_t flags, int *status) {
    char newer[128];
    Dl_info here;
    dladdr((void *)cuInit, &here);
    void *self = dlopen(here.dli_fname, RTLD_NOW | RTLD_NOLOAD);
    snprintf(newer, sizeof newer, "%s_v2", name);
    *function = dlsym(self, newer);
    if (!*function) *function = dlsym(self, name);
    if (status) *status = !*function;
    return *function ? OK : NOT_FOUND;
}

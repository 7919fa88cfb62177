"""The look of `face_pages` and what its ticks do: one stylesheet and one script, put into the pages as they are."""

# Texts reach 4.5:1 against what they lie on, in both schemes (WCAG 2.2, 1.4.3).
STYLE = """
:root { color-scheme: light dark; --ground: #f5f5f2; --sheet: #fff; --ink: #1a1d21; --faint: #59616b; --line: #d5d8dc;
  --accent: #1c5aa8; --on-accent: #fff; --warn: #8a4b00; --warn-ground: #fdf1dc; --strip: #eceef0;
  --found: #1c5aa8; --between: #4d9a8c; --beyond: #d08618; }
@media (prefers-color-scheme: dark) { :root { --ground: #131518; --sheet: #1c1f24; --ink: #e6e8eb; --faint: #a0a8b2;
  --line: #353b43; --accent: #86b6f5; --on-accent: #0e1a2b; --warn: #f3c178; --warn-ground: #2f2617; --strip: #272c33;
  --found: #6fa5ee; --between: #58b3a2; --beyond: #e5a13d; } }
* { box-sizing: border-box; }
[hidden] { display: none !important; }
html { scroll-behavior: smooth; scroll-padding-top: 1rem; }
body { margin: 0 auto; max-width: 75rem; padding: 0 clamp(.9rem, 3vw, 2rem); background: var(--ground);
  color: var(--ink); font: 16px/1.5 system-ui, "Segoe UI", Roboto, "Liberation Sans", sans-serif; }
header { padding: 2rem 0 1rem; border-bottom: 1px solid var(--line); }
h1, h2, h3, p { margin: 0 0 .5rem; }
h1 { font-size: 1.75rem; line-height: 1.2; }
h2 { font-size: 1.25rem; }
h2 small { margin-left: .3rem; color: var(--faint); font-size: 1rem; font-weight: normal; }
h3 { margin: 0; font-size: 1rem; }
.file { overflow-wrap: anywhere; white-space: pre-wrap; font-weight: 600; }
.facts { display: flex; flex-wrap: wrap; gap: .1rem 1.2rem; color: var(--faint); }
nav { display: flex; flex-wrap: wrap; gap: .2rem 1.2rem; }
a { color: var(--accent); text-underline-offset: .15em; }
:focus-visible { outline: 3px solid var(--accent); outline-offset: 2px; }
section { margin-top: 2.2rem; }
main > p { margin-top: 1.2rem; }
section > p { max-width: 45rem; }
ul, ol { margin: 0; padding: 0; list-style: none; }
footer { margin: 3rem 0 2rem; padding-top: 1rem; border-top: 1px solid var(--line); color: var(--faint);
  font-size: .9rem; }
.note { padding: .8rem 1rem; border: 1px solid var(--line); border-left: 4px solid var(--accent); border-radius: 4px;
  background: var(--sheet); }
.note.warn { border-color: var(--warn); background: var(--warn-ground); }
.note.warn strong { color: var(--warn); }
button { min-height: 2.2rem; padding: .2rem .9rem; border: 1px solid var(--accent); border-radius: 4px; cursor: pointer;
  background: var(--accent); color: var(--on-accent); font: inherit; }
button:disabled { border-color: var(--line); background: none; color: var(--faint); cursor: default; }
code { font: .85rem/1.5 ui-monospace, "Cascadia Mono", Menlo, "Liberation Mono", monospace; overflow-wrap: anywhere; }
input[type=checkbox] { flex: none; width: 1.15rem; height: 1.15rem; margin: 0; accent-color: var(--accent); }

.sheet { display: grid; grid-template-columns: repeat(auto-fill, minmax(12.5rem, 1fr)); gap: .9rem; }
.sheet.small { grid-template-columns: repeat(auto-fill, minmax(8.5rem, 1fr)); }
.card { border: 1px solid var(--line); border-radius: 6px; background: var(--sheet); overflow: hidden; }
.small .card { padding-bottom: .6rem; }
.card label { display: block; height: 100%; padding-bottom: .7rem; cursor: pointer; }
.card:has(:checked) { border-color: var(--accent); box-shadow: 0 0 0 2px var(--accent); }
.card:has(:focus-visible) { outline: 3px solid var(--accent); outline-offset: 3px; }
.card > .name, .card > .figures, .card label > :not(.shots) { display: flex; margin: .45rem .7rem 0; }
.name { gap: .5rem; align-items: center; font-weight: 600; overflow-wrap: anywhere; }
.figures, .row small { display: flex; flex-wrap: wrap; gap: 0 .8rem; color: var(--faint); font-size: .85rem;
  line-height: 1.35; }
.shots { display: grid; gap: 2px; grid-template-columns: repeat(3, 1fr); background: var(--strip); }
.shots > * { width: 100%; aspect-ratio: 1; object-fit: cover; display: block; }
.shots > :first-child { grid-column: 1 / -1; }
.blank { display: block; background: repeating-linear-gradient(45deg, var(--strip) 0 6px, var(--line) 6px 7px); }
.bar { position: sticky; bottom: 0; z-index: 1; display: flex; flex-wrap: wrap; gap: .3rem 1rem; align-items: center;
  max-width: none; margin: .9rem 0 0; padding: .5rem .8rem; border: 1px solid var(--line); border-radius: 6px;
  background: var(--sheet); box-shadow: 0 -2px 10px #0002; }
.bar span { flex: 1 1 14rem; }

.row { display: grid; grid-template-columns: 15rem 1fr; gap: .2rem 1rem; align-items: center; padding: .3rem 0;
  border-top: 1px solid var(--line); }
.row > span { overflow-wrap: anywhere; }
.portraits .row { grid-template-columns: 3rem 15rem 1fr; }
.portraits .row > img, .portraits .row > .blank { width: 3rem; height: 3rem; object-fit: cover; border-radius: 4px; }
.row svg { grid-column: -2; display: block; width: 100%; height: 1.6rem; overflow: visible; }
.axis { position: sticky; top: 0; z-index: 1; border: 0; background: var(--ground); }
.axis svg { height: 1.25rem; fill: var(--faint); font-size: .8rem; text-anchor: middle; }
.axis .first { text-anchor: start; }
.axis .last { text-anchor: end; }
.strip { background: var(--strip); border-radius: 3px; }
.strip line { stroke: var(--line); }
.strip rect { fill: var(--found); stroke: var(--found); stroke-width: 2; }
em { padding: 0 .45rem; border: 1px solid; border-radius: 1rem; font-size: .8rem; font-style: normal;
  white-space: nowrap; }
.row em { color: var(--faint); }
.row .spared { color: var(--warn); background: var(--warn-ground); }

.command { display: grid; grid-template-columns: 1fr auto; gap: 0 .8rem; margin-top: 1rem;
  padding: .8rem 1rem; border: 1px solid var(--line); border-radius: 6px; background: var(--sheet); }
.command p { margin: 0; color: var(--faint); font-size: .9rem; }
.command pre { margin: .5rem 0; padding: .6rem .8rem; border-radius: 4px; background: var(--strip);
  white-space: pre-wrap; word-break: break-all; }
.command code { user-select: all; }
.command code.idle { color: var(--faint); word-break: normal; font-style: italic; user-select: none; }
.command > :not(pre, button) { grid-column: 1 / -1; }
.command button { align-self: start; margin: .5rem 0; min-width: 5.5rem; }

.totals { display: grid; grid-template-columns: repeat(auto-fit, minmax(9.5rem, 1fr)); gap: .7rem;
  margin-bottom: .8rem; }
.totals li { padding: .7rem .9rem; border: 1px solid var(--line); border-radius: 6px; background: var(--sheet);
  color: var(--faint); font-size: .9rem; line-height: 1.35; }
.totals b { display: block; color: var(--ink); font-size: 1.5rem; line-height: 1.3; }
.share { display: block; width: 100%; height: 1.5rem; border-radius: 4px; background: var(--strip); overflow: hidden; }
rect.found { fill: var(--found); } rect.between { fill: var(--between); } rect.beyond { fill: var(--beyond); }
i.found { background: var(--found); } i.between { background: var(--between); } i.beyond { background: var(--beyond); }
.keys { display: grid; grid-template-columns: repeat(auto-fit, minmax(16rem, 1fr)); gap: .6rem 1.5rem;
  margin-top: .8rem; }
.keys i { display: inline-block; width: .8rem; height: .8rem; margin-right: .5rem; border-radius: 2px; }
.keys span { color: var(--faint); margin-left: .3rem; }
.keys small, .filters small { display: block; color: var(--faint); font-size: .85rem; line-height: 1.35; }
.settings { display: grid; grid-template-columns: fit-content(40%) 1fr; gap: .2rem 1.2rem; margin: 0;
  overflow-wrap: anywhere; }
.settings dt { color: var(--faint); }
.settings dd { margin: 0; }
.filters { display: grid; grid-template-columns: repeat(auto-fit, minmax(15rem, 1fr)); gap: .6rem 1.5rem;
  margin: .8rem 0 1rem; padding: .7rem 1rem .9rem; border: 1px solid var(--line); border-radius: 6px; }
.filters label { display: flex; gap: .6rem; cursor: pointer; }
.filters input { margin-top: .2rem; }
.looks { display: grid; grid-template-columns: repeat(auto-fill, minmax(13rem, 1fr)); gap: .9rem; }
.look { padding-bottom: .6rem; border: 1px solid var(--line); border-radius: 6px; background: var(--sheet);
  overflow: hidden; }
.look > img, .look > .blank { display: block; width: 100%; aspect-ratio: 4 / 3; object-fit: contain; background: #000; }
.look p { margin: .3rem .8rem 0; font-size: .9rem; line-height: 1.35; }
.look .reason { color: var(--warn); }
main:has(#show-0:not(:checked)) .reason-0, main:has(#show-1:not(:checked)) .reason-1,
main:has(#show-2:not(:checked)) .reason-2, main:has(#show-3:not(:checked)) .reason-3,
main:has(#show-4:not(:checked)) .reason-4 { display: none; }

@media (max-width: 40rem) {
  header { padding-top: 1.2rem; }
  .sheet { grid-template-columns: repeat(auto-fill, minmax(9.5rem, 1fr)); gap: .6rem; }
  .sheet.small { grid-template-columns: repeat(auto-fill, minmax(6.5rem, 1fr)); }
  .row, .command { grid-template-columns: 1fr; }
  .command button { justify-self: start; margin: 0 0 .3rem; }
  .portraits .row { grid-template-columns: 3rem 1fr; }
  .row svg { grid-column: 1 / -1; }
  .looks { grid-template-columns: repeat(auto-fill, minmax(10rem, 1fr)); gap: .6rem; }
  .totals { grid-template-columns: 1fr 1fr; }
}
@media (prefers-reduced-motion: reduce) { html { scroll-behavior: auto; } }
@media print { nav, .bar, .filters, button { display: none; } .card, .look, .row { break-inside: avoid; } }
"""

# Quotes as Python's shlex.quote does. A copy that the browser does not allow leaves the line selected.
SCRIPT = """
(() => {
  const at = id => document.getElementById(id);
  const quote = text => /^[\\w@%+=:,./-]+$/.test(text) ? text : "'" + text.replace(/'/g, `'"'"'`) + "'";
  const boxes = [...document.querySelectorAll("input[name=person]")];
  const copies = [...document.querySelectorAll("button[data-copy]")];
  const update = () => {
    const names = boxes.filter(box => box.checked).map(box => box.value);
    for (const option of boxes.length ? ["only", "except"] : []) {
      const line = at(option);
      line.classList.toggle("idle", !names.length);
      line.textContent = names.length ? `${at("everybody").textContent} --${option} ${quote(names.join(","))}`
        : "Tick somebody in the sheet above.";
    }
    for (const button of copies) {
      button.disabled = !names.length && button.dataset.copy != "everybody";
      at(button.dataset.copy + "-said").textContent = "";
    }
    if (!boxes.length) return;
    at("none").disabled = !names.length;
    at("ticked").textContent = !names.length ? "Nobody is ticked."
      : `${names.length} of ${boxes.length} ticked` + (names.length < 6 ? ": " + names.join(", ") : "");
  };
  const copy = async (line, said) => {
    try {
      await navigator.clipboard.writeText(line.textContent);
      said.textContent = "Copied.";
    } catch {
      getSelection().selectAllChildren(line);
      said.textContent = "Selected: copy it with the keyboard.";
    }
  };
  for (const box of boxes) box.addEventListener("change", update);
  for (const button of copies) {
    button.hidden = false;
    button.addEventListener("click", () => copy(at(button.dataset.copy), at(button.dataset.copy + "-said")));
  }
  if (boxes.length) {
    at("none").parentElement.hidden = false;
    at("none").addEventListener("click", () => { for (const box of boxes) box.checked = false; update(); });
  }
  addEventListener("pageshow", update);
  update();
})();
"""

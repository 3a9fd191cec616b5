// The editor of an issue. Without this script, buttons do everything. It adds three things: Ctrl S
// saves, the preview updates while typing, and this browser stores a copy of an unsaved text.
"use strict";
(() => {
  const form = document.querySelector("#editor");
  const text = form?.querySelector("#text");
  if (!text) return;
  const base = form.elements.namedItem("base");
  const standing = document.querySelector("#standing");
  const lost = document.querySelector("#lost");

  // --- Copies in this browser. The key contains the user, because browsers are shared, and is new
  // for each opened page, so that no copy overwrites another one.
  const KEPT = `console.editor.${form.dataset.keep}/`;
  const PLACE = "console.editor-place";
  const SENT = "console.editor-sent";
  const keyOfOurs = () => KEPT + Date.now().toString(36) + Math.random().toString(36).slice(1);
  let key = keyOfOurs();
  // A text that the server could not save is as unsaved as a typed one.
  const stored = form.dataset.unstored === undefined ? text.defaultValue : null;
  const read = (storage, name) => { try { return JSON.parse(window[storage].getItem(name)); } catch { return null; } };
  const names = () => { try { return Object.keys(localStorage); } catch { return []; } };

  // Store a copy; returns whether the text is safe.
  function keep() {
    const changed = text.value !== stored;
    standing.textContent = changed ? "Not saved yet" : standing.dataset.was;
    try {
      if (!changed) localStorage.removeItem(key);
      // The same text keeps its base, because it is not newer than revisions saved since.
      else if (read("localStorage", key)?.text !== text.value)
        localStorage.setItem(key, JSON.stringify({ text: text.value, base: base.value, at: Date.now() }));
      return true;
    } catch {
      standing.textContent = "Not saved yet, and this browser cannot save a copy";
      return false;
    }
  }
  standing.dataset.was = standing.textContent.trim();

  // Continue with the text typed while the previous page was saving; its base is the saved
  // revision. The copy of a new issue had a key without a slug.
  const [before, sent] = read("sessionStorage", SENT) ?? [];
  const typed = read("localStorage", before);
  if (typed && sent === text.defaultValue) {
    text.value = typed.text;
    if (stored !== null && keep()) localStorage.removeItem(before);
  }
  try { sessionStorage.removeItem(SENT); } catch { /* nothing was sent from here */ }
  if (form.dataset.stored !== undefined) history.replaceState(null, "", location.pathname);

  // The copies of other opened pages, newest last, except those that were saved meanwhile.
  const offer = document.querySelector("#kept");
  const copies = names()
    .filter(name => name.startsWith(KEPT) && name !== key)
    .map(name => ({ name, ...read("localStorage", name) }))
    .filter(copy => {
      if (copy.text === stored) localStorage.removeItem(copy.name);
      else if (copy.text === text.value) key = copy.name;
      else return typeof copy.text === "string";
      return false;
    })
    .sort((one, other) => one.at - other.at);
  if (stored === null) keep();

  function ask() {
    const copy = copies.at(-1);
    offer.hidden = !copy;
    if (!copy) return;
    const at = new Date(copy.at).toLocaleString([], { day: "numeric", month: "short", year: "numeric", hour: "2-digit", minute: "2-digit", timeZoneName: "short" });
    const older = copy.base !== base.value ? `, based on revision ${copy.base}, which is no longer the latest` : "";
    const more = copies.length > 1 ? ` ${copies.length - 1} more after this one.` : "";
    offer.querySelector(".lead").textContent = `An unsaved text from ${at} is in this browser${older}.${more}`;
  }
  ask();
  offer.querySelector("[data-take]").addEventListener("click", () => {
    if (!keep()) return; // what stands here would be lost with it
    const copy = copies.pop();
    if (text.value !== stored) {
      copies.push({ name: key, ...read("localStorage", key) });
      key = keyOfOurs();
    }
    text.value = copy.text;
    base.value = copy.base; // so that who stored another revision since is not overwritten
    if (keep()) localStorage.removeItem(copy.name);
    ask();
    text.focus();
    look();
  });
  offer.querySelector("[data-drop]").addEventListener("click", () => {
    localStorage.removeItem(copies.pop().name);
    ask();
    text.focus();
  });

  let waiting = 0;
  text.addEventListener("input", () => {
    clearTimeout(waiting);
    waiting = setTimeout(keep, 300);
  });
  addEventListener("pagehide", () => {
    clearTimeout(waiting);
    keep();
    if (storing) remember();
  });

  // --- Save, and return to the same position
  let storing = false;
  document.addEventListener("keydown", event => {
    if (!(event.ctrlKey || event.metaKey) || event.altKey || event.shiftKey || event.key.toLowerCase() !== "s") return;
    event.preventDefault();
    form.requestSubmit(document.querySelector("#store"));
  });
  form.addEventListener("submit", event => {
    if (event.submitter?.formTarget) return;
    // A browser cancels a form's submission when another begins, even one into a frame.
    storing = true;
    setTimeout(() => { storing = false; }, 10000);
    keep();
    remember();
    try { sessionStorage.setItem(SENT, JSON.stringify([key, text.value])); } catch { /* it is kept, and offered */ }
  });
  function remember() {
    sessionStorage.setItem(PLACE, JSON.stringify([text.selectionStart, text.selectionEnd, text.scrollTop]));
  }
  try {
    const [from, to, top] = JSON.parse(sessionStorage.getItem(PLACE));
    sessionStorage.removeItem(PLACE);
    text.focus({ preventScroll: true });
    text.setSelectionRange(from, to);
    text.scrollTop = top;
  } catch { /* the first look at this page */ }

  // --- Looking at it: htmx asks for the checks; when they say that it renders, so does the frame
  const show = document.querySelector("#show");
  const pane = document.querySelector("#pane");
  document.querySelector("#by-hand").hidden = true;
  const look = () => htmx.trigger(text, "look");
  let frames = 0;

  // Use a new frame for each preview: reusing one would fill the browser's history and flash
  // white. Its height is about that of the email, so that the pane keeps its scroll position.
  function refresh() {
    if (storing) return;
    const before = pane.querySelectorAll("iframe");
    const next = before[0].cloneNode();
    next.name = `mail-${++frames}`;
    const lines = text.value.split("\n").length;
    next.style.blockSize = `${500 + lines * 30 + text.value.length * 0.55}px`;
    next.classList.add("mail-coming");
    pane.append(next);
    show.formTarget = next.name;
    next.addEventListener("load", () => {
      before.forEach(old => old.remove());
      next.classList.remove("mail-coming");
    });
    form.requestSubmit(show);
  }
  form.querySelectorAll("[name=scheme]").forEach(one => one.addEventListener("change", refresh));
  document.body.addEventListener("htmx:afterSwap", event => {
    if (event.detail.target.id === "findings" && event.detail.target.querySelector("[data-renders]")) refresh();
  });
  document.body.addEventListener("htmx:responseError", event => {
    if (![401, 403].includes(event.detail.xhr.status)) return;
    const kept = keep();
    lost.querySelector("[data-kept]").hidden = !kept;
    lost.querySelector("[data-not-kept]").hidden = kept;
    lost.hidden = false;
  });
  document.body.addEventListener("htmx:afterRequest", event => {
    if (event.detail.successful) lost.hidden = true;
  });

  // --- From a finding to its line
  form.addEventListener("click", event => {
    const line = Number(event.target.closest?.("[data-line]")?.dataset.line);
    if (!line) return;
    const lines = text.value.split("\n");
    const from = lines.slice(0, line - 1).join("\n").length + (line > 1 ? 1 : 0);
    text.focus();
    text.setSelectionRange(from, from + (lines[line - 1] ?? "").length);
    const height = parseFloat(getComputedStyle(text).lineHeight);
    text.scrollTop = Math.max(0, (line - 5) * height);
  });
})();

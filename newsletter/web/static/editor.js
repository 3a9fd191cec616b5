// The editor of an issue. Without it everything works by buttons; it adds three things:
// Ctrl S stores, the preview follows what is typed, and what is not stored is kept in this
// browser until it is.
"use strict";
(() => {
  const form = document.querySelector("#editor");
  const text = form?.querySelector("#text");
  if (!text) return;
  const base = form.elements.namedItem("base");
  const standing = document.querySelector("#standing");

  // --- Kept in this browser. The key has the user in it: browsers are shared.
  const KEY = "console.editor.";
  const key = KEY + form.dataset.keep;
  const PLACE = "console.editor-place";
  const SENT = "console.editor-sent";
  const stored = text.defaultValue;
  const read = name => { try { return JSON.parse(localStorage.getItem(name)); } catch { return null; } };

  function keep() {
    const changed = text.value !== stored;
    standing.textContent = changed ? "Not stored yet" : standing.dataset.was;
    try {
      if (changed) localStorage.setItem(key, JSON.stringify({ text: text.value, base: base.value, at: Date.now() }));
      else localStorage.removeItem(key);
    } catch {
      standing.textContent = "Not stored yet, and this browser keeps no copy";
    }
  }
  standing.dataset.was = standing.textContent.trim();

  // What was sent from here and is stored by now needs no copy: a new issue's has another key.
  if (form.dataset.stored !== undefined) {
    localStorage.removeItem(sessionStorage.getItem(SENT) ?? key);
    localStorage.removeItem(key);
    history.replaceState(null, "", location.pathname);
  }

  const offer = document.querySelector("#kept");
  const copy = read(key);
  let asked = copy && typeof copy.text === "string" && copy.text !== text.value;
  if (asked) {
    const at = new Date(copy.at).toLocaleString([], { dateStyle: "medium", timeStyle: "short" });
    const older = copy.base !== base.value ? `, made from revision ${copy.base}, which is not the latest any more` : "";
    offer.querySelector(".lead").textContent = `A text of ${at} that was never stored is kept in this browser${older}.`;
    offer.hidden = false;
  }
  offer.querySelector("[data-take]").addEventListener("click", () => {
    text.value = copy.text;
    base.value = copy.base; // so that who stored another revision since is not overwritten
    settled();
    text.focus();
    look();
  });
  offer.querySelector("[data-drop]").addEventListener("click", () => { settled(); text.focus(); });
  function settled() {
    asked = false;
    offer.hidden = true;
    keep();
  }

  let waiting = 0;
  text.addEventListener("input", () => {
    clearTimeout(waiting);
    // As long as nobody has said what becomes of the older copy it is not written over.
    waiting = setTimeout(() => asked || keep(), 300);
  });

  // --- Storing, and back to the same place afterwards
  let storing = false;
  document.addEventListener("keydown", event => {
    if (!(event.ctrlKey || event.metaKey) || event.altKey || event.shiftKey || event.key.toLowerCase() !== "s") return;
    event.preventDefault();
    form.requestSubmit(document.querySelector("#store"));
  });
  form.addEventListener("submit", event => {
    if (event.submitter?.formTarget) return;
    // A browser drops a form's submission for a later one, even one into a frame.
    storing = true;
    setTimeout(() => { storing = false; }, 10000);
    if (!asked) keep();
    sessionStorage.setItem(SENT, key);
    sessionStorage.setItem(PLACE, JSON.stringify([text.selectionStart, text.selectionEnd, text.scrollTop]));
  });
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

  // A new frame for each look: one that is used again would fill the browser's history, and
  // go white in between. It is as high as the mail about is, so that the pane scrolls and
  // stays where it is.
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
    if (!asked) keep();
    document.querySelector("#lost").hidden = false;
  });
  document.body.addEventListener("htmx:afterRequest", event => {
    if (event.detail.successful) document.querySelector("#lost").hidden = true;
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

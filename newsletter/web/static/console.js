// Keyboard shortcuts of the console. Pages work without them: the script only focuses and clicks
// elements of the page. Single keys can be turned off in the help dialog (WCAG 2.1.4).
//
// The script finds elements by markup: the search is the first input[type=search], actions are the
// visible .button elements of <main>, rows are those of .table. Buttons that remove or stop
// something are .button-danger, or have data-careful if they should look like others.
"use strict";
(() => {
  const SINGLE_KEYS_OFF = "console.single-keys-off";
  const SECOND_KEY_WITHIN = 1500; // ms after "g"
  const help = document.querySelector("dialog#keys");
  const palette = document.querySelector("dialog#palette");
  if (!help || !palette) return;

  const pages = [...document.querySelectorAll(".nav a")];
  const seen = element => element.checkVisibility({ visibilityProperty: true });
  const words = element => (element.getAttribute("aria-label") || element.textContent).trim().replace(/\s+/g, " ");

  // On a phone the navigation scrolls sideways: scroll to the current page's entry.
  document.querySelector(".nav [aria-current]")?.scrollIntoView({ block: "nearest", inline: "center" });

  // --- Single keys: /, ?, j, k, and g with a second key
  const off = () => localStorage.getItem(SINGLE_KEYS_OFF) === "yes";
  const toggle = help.querySelector("[name=single-keys]");
  toggle.checked = !off();
  toggle.addEventListener("change", () =>
    toggle.checked ? localStorage.removeItem(SINGLE_KEYS_OFF) : localStorage.setItem(SINGLE_KEYS_OFF, "yes"));

  let waitsForSecond = 0;
  const typing = target => target instanceof HTMLElement
    && (target.isContentEditable || target.matches("textarea, select, input:not([type=checkbox], [type=radio], [type=submit])"));

  function step(by) {
    const links = [...document.querySelectorAll("main .table tbody tr")]
      .map(row => row.querySelector("a")).filter(link => link && seen(link));
    const at = links.indexOf(document.activeElement);
    const next = at < 0 ? (by > 0 ? 0 : links.length - 1) : at + by;
    links[Math.max(0, Math.min(links.length - 1, next))]?.focus();
  }

  const keys = {
    "/": () => [...document.querySelectorAll("main input[type=search]")].find(seen)?.focus(),
    "?": () => help.showModal(),
    "j": () => step(1),
    "k": () => step(-1),
    "g": () => { waitsForSecond = Date.now(); },
  };

  document.addEventListener("keydown", event => {
    if ((event.ctrlKey || event.metaKey) && !event.altKey && !event.shiftKey && event.key.toLowerCase() === "k") {
      event.preventDefault();
      palette.open ? palette.close() : ask();
      return;
    }
    if (event.ctrlKey || event.metaKey || event.altKey || event.repeat && event.key === "g") return;
    if (off() || typing(event.target) || document.querySelector("dialog[open]")) return;
    const second = Date.now() - waitsForSecond < SECOND_KEY_WITHIN;
    waitsForSecond = event.key === "Shift" && second ? waitsForSecond : 0;
    const page = second && pages.find(link => link.dataset.key === event.key);
    if (page) page.click();
    else if (!Object.hasOwn(keys, event.key)) return;
    else keys[event.key]();
    event.preventDefault();
  });

  // --- Command palette: a combobox over the navigation and the page's own actions
  const input = palette.querySelector("input");
  const list = palette.querySelector("[role=listbox]");
  const none = palette.querySelector("[role=status]");
  let commands = [];
  let shown = [];
  let chosen = 0;

  function ask() {
    if (help.open) help.close();
    const actions = [...document.querySelectorAll("main .button")].filter(one => seen(one) && !one.disabled);
    commands = [
      ...actions.map(element => ({ element, name: words(element), about: "On this page" })),
      ...pages.map(element => ({ element, name: words(element), about: "Page", key: element.dataset.key })),
      ...[...document.querySelectorAll(".who a, .who button")]
        .map(element => ({ element, name: element.matches("a") ? "My account" : words(element), about: "You" })),
    ];
    input.value = "";
    palette.showModal();
    show();
  }

  // Each typed word must occur. Names that begin with the typed text come first.
  function show() {
    const typed = input.value.toLowerCase().split(/\s+/).filter(Boolean);
    const rank = one => one.name.toLowerCase().startsWith(typed.join(" ")) ? 0 : 1;
    shown = commands
      .filter(one => typed.every(word => `${one.name} ${one.about}`.toLowerCase().includes(word)))
      .sort((a, b) => rank(a) - rank(b));
    list.replaceChildren(...shown.map((one, number) => {
      const option = document.createElement("li");
      option.id = `palette-${number}`;
      option.role = "option";
      option.append(one.name, Object.assign(document.createElement("span"), { textContent: one.about }));
      if (one.key) option.append(Object.assign(document.createElement("kbd"), { textContent: `g ${one.key}` }));
      option.addEventListener("click", () => { chosen = number; run(); });
      return option;
    }));
    none.textContent = shown.length ? "" : "Nothing here is called that.";
    choose(0);
  }

  function choose(number) {
    chosen = (number + shown.length) % (shown.length || 1);
    [...list.children].forEach((option, at) => option.ariaSelected = String(at === chosen));
    const option = list.children[chosen];
    option ? input.setAttribute("aria-activedescendant", option.id) : input.removeAttribute("aria-activedescendant");
    option?.scrollIntoView({ block: "nearest" });
  }

  function run() {
    const one = shown[chosen];
    if (!one) return;
    palette.close();
    one.element.focus();
    // A dangerous button is only focused, so that it takes another key to press it.
    if (!one.element.matches(".button-danger, [data-careful]")) one.element.click();
  }

  input.addEventListener("input", show);
  input.addEventListener("keydown", event => {
    const move = { ArrowDown: chosen + 1, ArrowUp: chosen - 1 }[event.key];
    if (move !== undefined) choose(move);
    else if (event.key === "Enter") run();
    else return;
    event.preventDefault();
  });

  // --- Dialogs: a click outside closes one; the browser keeps and restores the focus
  for (const dialog of [help, palette])
    dialog.addEventListener("click", event => { if (event.target === dialog) dialog.close(); });
  for (const [name, open] of [["palette", ask], ["keys", () => help.showModal()]])
    document.querySelectorAll(`[data-opens=${name}]`).forEach(button => {
      button.hidden = false;
      button.addEventListener("click", open);
    });
})();

// Updates the preview without reloading the page. The other forms then use the current values of
// the fields, not those from when the page was loaded.
"use strict";
(() => {
  const chosen = document.querySelector("#chosen");
  document.querySelectorAll("form[data-as-chosen]").forEach(form => form.addEventListener("submit", () => {
    const address = new URL(form.action);
    address.search = new URLSearchParams(new FormData(chosen));
    form.action = address;
  }));
})();

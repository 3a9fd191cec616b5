// The preview changes without being loaded again. What is sent or asked beside it is of what
// stands in the fields above, and not of what stood there when the page was loaded.
"use strict";
(() => {
  const chosen = document.querySelector("#chosen");
  document.querySelectorAll("form[data-as-chosen]").forEach(form => form.addEventListener("submit", () => {
    const address = new URL(form.action);
    address.search = new URLSearchParams(new FormData(chosen));
    form.action = address;
  }));
})();

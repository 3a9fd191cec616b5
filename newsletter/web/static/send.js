// Updates the figures of a send while they change. Without this script, the page shows those from
// when it was loaded.
"use strict";
(() => {
  const figures = document.querySelector("[data-live]");
  if (!figures) return;
  const source = new EventSource(figures.dataset.live);
  source.addEventListener("progress", event => { figures.innerHTML = event.data; });
  source.addEventListener("over", () => {
    source.close();
    // Do not replace a field in use, or an open confirmation.
    const busy = document.querySelector("main details[open], main form:focus-within input:not([type=hidden]), dialog[open]");
    if (busy) document.querySelector("[data-changed]").hidden = false;
    else location.reload();
  });
})();

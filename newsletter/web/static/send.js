// A send's figures as they change. Without this file the page shows them as they were when
// it was loaded.
"use strict";
(() => {
  const figures = document.querySelector("[data-live]");
  if (!figures) return;
  const source = new EventSource(figures.dataset.live);
  source.addEventListener("progress", event => { figures.innerHTML = event.data; });
  source.addEventListener("over", () => {
    source.close();
    // Nobody loses what they are typing, or a question that they are about to answer.
    const busy = document.querySelector("main details[open], main form:focus-within input:not([type=hidden]), dialog[open]");
    if (busy) document.querySelector("[data-changed]").hidden = false;
    else location.reload();
  });
})();

// Sets the worker that solves challenges, because the bundle contains none.
globalThis.$altcha.algorithms.set(
  "PBKDF2/SHA-256",
  () => new Worker(new URL("vendor/altcha/pbkdf2.js", import.meta.url), { type: "module" }),
);

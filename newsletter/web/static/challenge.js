// Which worker solves our challenges: the bundle without workers leaves it to us.
globalThis.$altcha.algorithms.set(
  "PBKDF2/SHA-256",
  () => new Worker(new URL("vendor/altcha/pbkdf2.js", import.meta.url), { type: "module" }),
);

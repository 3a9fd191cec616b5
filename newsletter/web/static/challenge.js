// Which worker solves our challenges: the bundle without workers leaves it to us.
globalThis.$altcha.algorithms.set(
  "PBKDF2/SHA-256",
  () => new Worker("/static/vendor/altcha/pbkdf2.js", { type: "module" }),
);

// Dates out of range, negative zero, not-a-number and the like are data.
// ENDS: ok
[new Date(NaN), -0, NaN, Infinity, 10n ** 300n, new Map([[1, 2]]), new Set([1]), undefined, null, new Error("x"), /x/, Object(1n)];

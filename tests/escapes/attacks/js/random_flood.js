// Randomness is handed out in bounded portions.
// ENDS: denied QuotaExceededError
attempt(() => crypto.getRandomValues(new Uint8Array(1 << 20)));

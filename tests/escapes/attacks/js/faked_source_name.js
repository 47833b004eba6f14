// A task may lie about where its code is; the error is still its own.
// ENDS: error GuestException
eval("throw new Error('lie')\n//# sourceURL=/etc/shadow\n//# sourceMappingURL=http://127.0.0.1/map");

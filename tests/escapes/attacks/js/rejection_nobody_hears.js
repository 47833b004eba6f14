// A rejection that nobody handles is noise, not the end.
// ENDS: ok
Promise.reject(new Error("unheard"));
"answered";

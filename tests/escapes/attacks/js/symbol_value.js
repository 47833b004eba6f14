// A symbol or a function is no value.
// ENDS: error UnserializableValue
Symbol("x");

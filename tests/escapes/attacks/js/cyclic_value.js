// Nor one that contains itself.
// ENDS: error UnserializableValue
const value = {}; value.value = value; value;

// Text that is no text cannot leave.
// ENDS: error UnserializableValue
"\ud800";

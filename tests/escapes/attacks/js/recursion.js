// The stack ends with an exception, not with the process.
// ENDS: error GuestException
const down = () => down() + 1;
down();

// A thenable is asked within the deadline.
// ENDS: timeout
// WITH: timeout_s=0.5
({ get then() { for (;;); } });

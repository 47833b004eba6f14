// Code that ends inside a comment swallows no line of ours.
// ENDS: ok
"answered" // and the next line is

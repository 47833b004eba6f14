"""How good are the choices of the scheduler, against an oracle and what people use instead?"""

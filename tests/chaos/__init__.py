"""Many processes live through random faults while a model of what must hold is kept beside them."""

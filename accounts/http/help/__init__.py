"""Links from errors to the page that explains them."""

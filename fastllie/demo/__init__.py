"""A page in the browser that shows photographs before and after."""

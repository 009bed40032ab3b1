"""What flows from a prompt to a picture, as shapes only, in the order of the flow."""

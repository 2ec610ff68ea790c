"""People that do not exist, drawn: who they are (people), how a picture is taken (shot), and the drawing itself."""

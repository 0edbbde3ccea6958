"""Greets."""

from flask import Flask

app = Flask(__name__)


@app.get("/<name>")
def greet(name: str) -> dict[str, str]:
    return {"hello": name}

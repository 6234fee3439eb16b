"""The stages of a run: collect -> check -> encode -> train -> evaluate -> report; and what is made of several runs."""

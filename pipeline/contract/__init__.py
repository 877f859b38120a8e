"""schemas/, consumers/ -> JSON Schemas and an AsyncAPI page: the contract, for readers without our code.

Everything is read off the code: messages off the models, flows off the first line of each stage. Nothing
here imports a stage, so that the light client can print the page too. `python -m pipeline.contract`
writes both into the repository, and refuses a schema that a reader of the last one would not understand.
"""

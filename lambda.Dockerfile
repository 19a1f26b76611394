# The Lambda image: the node image, started as AWS Lambda wants it. So both hold the same packages
# and tools, to the byte, in the same places. Built by `make images`.
ARG NODE=punch-node:local
FROM ${NODE}
ENTRYPOINT ["/opt/punch/lambda-entry.sh"]
CMD ["punchlib.node.lambda_handler.handler"]

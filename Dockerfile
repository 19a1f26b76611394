# The node image: the engine, the runtime tools and `punch`, for EC2, containers and laptops.
# Built by `make images`: services/build.py lays out .build/images/ and makes the images below this one.
ARG PACKAGES=punch-packages:local
FROM ${PACKAGES}
# What never changes comes first, so that a change of punchlib costs three steps.
ENV LANG=C.UTF-8 PYTHONUNBUFFERED=1 PASH_TOP=/var/task LAMBDA_TASK_ROOT=/var/task
WORKDIR /var/task
EXPOSE 9999
ENTRYPOINT ["/opt/punch/ec2-entry.sh"]
CMD ["ec2-handler"]
COPY services/install.sh services/ec2/ec2-entry.sh services/ec2/seccomp.json \
     services/lambda/lambda-entry.sh /opt/punch/
COPY .build/images/app/ /opt/punch/site/
RUN /opt/punch/install.sh
USER 1000:1000

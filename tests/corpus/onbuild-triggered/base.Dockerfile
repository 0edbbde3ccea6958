FROM busybox
WORKDIR /app
ONBUILD ARG MODE=standard
ONBUILD COPY file.txt ./
ONBUILD RUN echo "$MODE" > /mode
ONBUILD LABEL triggered=yes
ONBUILD USER 1000

FROM busybox
ONBUILD RUN echo once >> /count
ONBUILD ENTRYPOINT ["sh"]

"""The studio: a web page to paint with a classifier, and the program between the page and a gateway.

    page  <- one WebSocket ->  app  <- gRPC ->  gateway

The app keeps nothing of a visitor but what is under way: every order carries the pictures that it starts from, so that the page
goes on after anything behind it was restarted. It needs no torch.
"""

"""HTTP/1.1 on stream transports: one request of a connection at a time, bodies by backpressure.

`head` finds and parses heads, `framing` knows where a body ends, `body` holds what has come of
it, `loan` and `uploads` let a thread read it, `messages` are what handlers take and give,
`responses` and `files` send answers, `connection` ties them together and gives itself away when
it is hijacked.
"""

from estiba.http1.body import Body
from estiba.http1.connection import Connection
from estiba.http1.files import FileBody
from estiba.http1.loan import Loan
from estiba.http1.messages import HttpRequest, HttpResponse

__all__ = ["Body", "Connection", "FileBody", "HttpRequest", "HttpResponse", "Loan"]

"""Django that answers to one host alone: any other Host header is a 400."""

from django.conf import settings
from django.core.wsgi import get_wsgi_application
from django.http import HttpResponse
from django.urls import path

settings.configure(
    ALLOWED_HOSTS=["shop.example"],
    MIDDLEWARE=["django.middleware.common.CommonMiddleware"],
    ROOT_URLCONF=__name__,
    SECRET_KEY="of a test",
)
urlpatterns = [path("metrics", lambda request: HttpResponse("inprogress 0\n", content_type="text/plain"))]
application = get_wsgi_application()

"""A Django project in one file, on its own server or another: /hello, and /slow?seconds=N."""

import sys
import time

import django.conf
import django.core.management
import django.http
import django.urls

django.conf.settings.configure(ROOT_URLCONF=__name__, ALLOWED_HOSTS=["*"], DEBUG=False)


def hello(request):
    return django.http.HttpResponse("hello")


def slow(request):
    time.sleep(float(request.GET["seconds"]))
    return django.http.HttpResponse("done")


urlpatterns = [django.urls.path("hello", hello), django.urls.path("slow", slow)]
django.core.management.execute_from_command_line(["django", "runserver", "--noreload", f"127.0.0.1:{sys.argv[1]}"])

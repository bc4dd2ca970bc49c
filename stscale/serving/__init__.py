"""Jobs over HTTP: a queue whose plans fit the machine, a process a job, progress, reports."""

from stscale.serving.app import create_app
from stscale.serving.run import serve
from stscale.serving.service import Service
from stscale.serving.settings import Settings

__all__ = ["Service", "Settings", "create_app", "serve"]

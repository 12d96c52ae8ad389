"""The timer that advances jobs in the application; the only part of a run that needs Qt."""

import qt

POLL_MILLISECONDS = 50


def pollWithTimer(job):
    """Have ``job.poll()`` called from the main thread until the job has finished."""
    timer = qt.QTimer()
    timer.setInterval(POLL_MILLISECONDS)

    def onTimeout():
        job.poll()
        if job.isFinished:
            timer.stop()
            job.timer = None

    timer.connect("timeout()", onTimeout)
    job.timer = timer
    timer.start()


def stopPolling(job):
    """Take the timer away again; nothing advances the job any more."""
    if getattr(job, "timer", None) is not None:
        job.timer.stop()
        job.timer = None

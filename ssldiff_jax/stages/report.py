"""Stage `report`."""


def run(context):
    return {}

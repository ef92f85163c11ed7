"""The stories. Each is given the cluster and a result to fill in, and fails by an assertion."""

STORIES = []


def scenario(name, alone=False):
    """One that is played. `alone` means that it changes what others in the cluster would notice."""

    def keep(story):
        STORIES.append((name, story, alone))
        return story

    return keep

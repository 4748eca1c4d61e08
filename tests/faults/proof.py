"""The proof after any fault: the tables are those of a run that nobody disturbed, each event is there once, the numbers add up."""

import lake
from harness import check_accounting


def prove(disturbed, cluster, ledger):
    """Waits for calm, ends the cluster cleanly, runs another over the same topics and compares. *Returns* figures."""
    names = disturbed.names
    n_sent = {names[kind]: ledger[kind]["sent"] for kind in names}
    check_accounting(disturbed.wait_until_calm(n_sent), ledger, names)
    disturbed.deliver(n_sent)

    alone = cluster(names, bootstrap=disturbed.bootstrap).start()
    check_accounting(alone.wait_until_calm(n_sent), ledger, names)
    alone.deliver(n_sent)

    counts = lake.assert_same(disturbed.lake, alone.lake)
    for one in (disturbed, alone):
        lake.assert_events_once(one.lake, ledger)
        n_commits = lake.assert_checkpoints_once(one.lake)
        if one is disturbed:
            figures = {"n_commits": sum(n_commits.values()), "n_orphans": len(lake.orphans(one.lake)), "rows": counts}
    assert not lake.orphans(alone.lake), "an undisturbed run leaves files that no version holds"
    return figures

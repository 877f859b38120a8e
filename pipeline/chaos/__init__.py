"""Chaos on real processes: events are published while everything is killed, stopped, paused and cut off.

    plan      seed -> what is published, and which fault strikes when; pure
    run, own_stack        a run from its start to its end, on a stack of its own
    feeding, publishing   what is published, when something is to be in flight
    striking, faults, proxy, disk       what is done to the stack, and whether it hit anything
    watching  how much was in flight just then
    reading, checking     what was acknowledged, against what the record, the index and the log hold

It ends with a verdict in the words of Kafka's checkers: lost, duplicated, stale, resurrected, unseen.
"""

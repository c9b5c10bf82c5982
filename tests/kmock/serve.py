#!/usr/bin/env python3
"""Kubernetes as kmock imitates it, over TLS, for agent/tests/kubernetes/stranger.rs, which asks for one thing a line.

kmock decides what a path and a method mean, what is kept, and how lists, watches, refusals and errors look. From here is
what it leaves to whoever derives from it: UIDs, times and versions of objects, an apply that creates, field selectors,
what a version means to a watch, tokens; the UID of `kube-system`, whose path kmock takes for a list; and the moods.
"""

import asyncio
import datetime
import json
import ssl
import sys
import uuid

import aiohttp
import aiohttp.test_utils
import kmock

CERTIFICATE, KEY, AUTHORITY, TOKEN, VERSIONS = sys.argv[1:]
GROUP = "/apis/warren.dev/v1alpha1"
WRITES = (kmock.action.CREATE, kmock.action.UPDATE, kmock.action.DELETE)
GONE = {"type": "ERROR", "object": {"kind": "Status", "status": "Failure", "reason": "Expired", "code": 410}}


class Cluster(kmock.KubernetesEmulator):
    """A cluster whose versions are numbers, or words that say nothing of before and after."""

    last = 0
    mood = None
    # So many watches of WarrenNodes are still to be told that their version is too old.
    expired = 0

    def version(self, number):
        return str(number) if VERSIONS == "numbers" else f"version-{number}"

    async def _handle(self, request):
        if self.mood == "slow" and not is_ours(request):
            await asyncio.sleep(0.3)
        if any(request in refused for refused in self.refused):
            # kmock would do it all the same.
            return await kmock.RawHandler._handle(self, request)
        if request.resource is not None and request.action in WRITES:
            self.stamp(request)
        return await super()._handle(request)

    def stamp(self, request):
        self.last += 1
        metadata = {"resourceVersion": self.version(self.last)}
        name = request.name or request.data["metadata"].get("name")
        key = (request.resource, request.namespace, name)
        there = key in self.objects and not self.objects[key].deleted
        if request.action == kmock.action.DELETE:
            return self.objects[key].patch({"metadata": metadata}) if there else None
        if not there:
            now = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
            metadata |= {"uid": str(uuid.uuid4()), "creationTimestamp": now}
        request.data["metadata"].update(metadata)
        if request.action == kmock.action.UPDATE and not there:
            self.objects[key] = {}

    async def _serve_list(self, request):
        found = await super()._serve_list(request)
        found["metadata"]["resourceVersion"] = self.version(self.last)
        found["items"] = [item for item in found["items"] if is_selected(request, item)]
        return found

    async def _serve_watch(self, request):
        since = request.params["resourceVersion"]
        if request.resource.plural == "warrennodes" and self.expired:
            self.expired -= 1
            yield GONE
            return
        # kmock tells what there is at the start of each watch, whatever was heard before; what is gone, only a list shows.
        async for event in super()._serve_watch(request):
            if not event or self.is_news(event["object"], since) and is_selected(request, event["object"]):
                yield event

    def is_news(self, found, since):
        return VERSIONS != "numbers" or int(found["metadata"]["resourceVersion"]) > int(since)


def is_ours(request):
    return "kmock/" in request.headers.get("User-Agent", "")


def is_selected(request, item):
    selector = request.params.get("fieldSelector")
    return not selector or selector == f"metadata.name={item['metadata']['name']}"


def prepare(cluster):
    for plural in ["warrennodes", "warrenblocks", "warrenclusters"]:
        cluster.resources[f"warren.dev/v1alpha1/{plural}"] = {}
    cluster.resources["v1/nodes"] = {}
    cluster.resources["events.k8s.io/v1/events"] = {}
    cluster["get /api/v1/namespaces/kube-system"] << {"metadata": {"name": "kube-system", "uid": "cluster-of-kmock"}}

    def agent(mood, *actions):
        return cluster[
            lambda asked: not is_ours(asked) and cluster.mood == mood and (not actions or asked.action in actions)
        ]

    stranger = cluster[lambda asked: not is_ours(asked) and asked.headers.get("Authorization") != f"Bearer {TOKEN}"]
    busy, conflict = agent("busy"), agent("conflict", *WRITES)
    blocks = f"get {GROUP}/warrenblocks"
    stranger << 401 << {"kind": "Status", "message": "Unauthorized", "code": 401}
    busy << 429 << {"Retry-After": "1"} << {"kind": "Status", "message": "later", "code": 429}
    conflict << 409 << {"kind": "Status", "message": "somebody else was faster", "code": 409}
    # A cache that has yet to hear of what stands in the store.
    agent("blind", kmock.action.LIST)[blocks] << {"metadata": {"resourceVersion": cluster.version(0)}, "items": []}
    agent("blind", kmock.action.WATCH)[blocks] << (b"", ...)
    agent("babbling") << b"<html>Welcome to nginx!</html>"
    agent("lying", kmock.action.LIST, kmock.action.FETCH) << {"kind": "List", "items": "none", "metadata": []}
    agent("lying", kmock.action.WATCH) << ({"type": "ADDED", "object": {"metadata": {"resourceVersion": 7}}},)
    cluster.refused = [stranger, busy, conflict]


async def obey(cluster, server, order):
    match order:
        case {"method": method, "path": path, **rest}:
            async with cluster.request(method, path, json=rest.get("body")) as answer:
                return {"status": answer.status, "body": await answer.json()}
        case {"mood": mood}:
            cluster.mood = mood
        case {"expired": times}:
            cluster.expired = times
        case {"cut": _}:
            for connection in list(server.server.handler.connections):
                # Not the one by which kmock's own client asks.
                if connection.transport:
                    connection.transport.abort()
        case {"asked": action, "path": path}:
            asked = [one for one in cluster[kmock.action(action)] if not is_ours(one) and one.url.path == path]
            return [dict(one.params) for one in asked]
    return None


async def main():
    ours, theirs = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH), ssl.create_default_context(cafile=AUTHORITY)
    ours.load_cert_chain(CERTIFICATE, KEY)

    class Secure(aiohttp.test_utils.RawTestServer):
        async def start_server(self, **kwargs):
            await super().start_server(ssl=ours, **kwargs)

    def client(url):
        return aiohttp.ClientSession(url, connector=aiohttp.TCPConnector(ssl=theirs, force_close=True))

    cluster = Cluster()
    prepare(cluster)
    async with cluster, kmock.Server(cluster, server_cls=Secure, client_fct=client) as server:
        print(json.dumps(str(server.url)), flush=True)
        orders = asyncio.StreamReader(limit=1 << 24)
        await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(orders), sys.stdin)
        while line := await orders.readline():
            print(json.dumps(await obey(cluster, server, json.loads(line))), flush=True)


asyncio.run(main())

"""What the baselines share: a line of JSON for each command and each answer, graphs, times.

Reads a command a line and answers each with a line: {"result": …} or {"error": text}. The caller takes turns between its own
kernels and these, so that all meet the same clocks.
"""
import json
import sys

import torch


class Baselines:
    def about(self):
        return {"torch": torch.__version__, "cuda": torch.version.cuda, "gpu": torch.cuda.get_device_name()}

    def capture(self, run):
        graph, stream = torch.cuda.CUDAGraph(), torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            run(0)
            with torch.cuda.graph(graph, stream=stream):
                for i in range(self.count):
                    run(i)
        torch.cuda.synchronize()
        return graph

    def time(self, name):
        """µs a run: of two replays, one behind the other, the second."""
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        self.graphs[name].replay()
        start.record()
        self.graphs[name].replay()
        end.record()
        end.synchronize()
        return start.elapsed_time(end) * 1e3 / self.count


def serve(baselines):
    for line in sys.stdin:
        try:
            command = json.loads(line)
            answer = {"result": getattr(baselines, command.pop("do"))(**command)}
        except Exception as error:  # whatever PyTorch can't do is the caller's to report
            answer = {"error": f"{type(error).__name__}: {error}"}
        print(json.dumps(answer), flush=True)

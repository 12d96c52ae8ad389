"""Stands for the engine in tests of the landmark module: answers in a moment, with a known shift.

As ``samconvex match``, ``template`` and ``track`` after one word (done, slow, input), as the live matching process
after ``live``. Points lie SHIFT_LPS away; labels that start with "gone" are not found,
with "beyond" outside the scan.
"""

import csv
import json
import sys
import time
from pathlib import Path

SHIFT_LPS = (4.0, -6.0, 10.0)


def say(values):
    print(json.dumps(values), flush=True)


def report(stage, percent):
    say({"stage": stage, "percent": percent, "seconds_left": 2.0, "memory_mib": 320.0})


def shifted(point):
    return [float(value) + step for value, step in zip(point, SHIFT_LPS, strict=True)]


def match(arguments):
    words, also = [], []
    options = {}
    while arguments:
        word = arguments.pop(0)
        if word == "--also":
            also.append((arguments.pop(0), arguments.pop(0)))
        elif word.startswith("-"):
            options[word] = arguments.pop(0)
        else:
            words.append(word)
    template, points, *queries = words
    missing = [path for path in (template, points, *queries) if not Path(path).exists()]
    if missing:
        print(f"{missing[0]} does not exist; check the path.", file=sys.stderr)
        return 2
    with open(points, encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    entries = []
    for row in rows:
        beyond = row["label"].startswith("beyond")
        gone = beyond or row["label"].startswith("gone")
        entries.append(
            {
                "label": row["label"],
                "point": shifted([row["x"], row["y"], row["z"]]),
                "score": 0.4 if gone else 0.9,
                "cycle_mm": 30.0 if gone else 1.5,
                "found": not gone,
                "state": "outside" if beyond else "not found" if gone else "found",
                **({} if gone else {"error90_mm": 7.5}),
                "votes": 0 if gone else 1 + len(also),
                "spread_mm": 0.0,
            }
        )
    answer = {query: entries for query in queries}
    Path(options["-o"]).write_text(json.dumps(answer))
    Path(options["-o"]).with_suffix(".arguments").write_text(json.dumps(sys.argv))
    return 0


def template(arguments):
    folder = Path(arguments[arguments.index("-o") + 1])
    folder.mkdir(parents=True)
    (folder / "template.json").write_text("{}")
    return 0


def live():
    say({"ready": True})
    for line in sys.stdin:
        request = json.loads(line)
        number = request["id"]
        if request["do"] == "load":
            if not Path(request["path"]).exists():
                say({"id": number, "error": f"{request['path']} does not exist."})
                continue
            say({"id": number, "stage": "embedding", "fraction": 0.5})
            say({"id": number, "done": True, "voxels": 1})
        elif request["do"] == "match":
            if request["point"][2] > 1e5:
                sys.exit("the process broke")
            point = request["point"]
            # Upper ends have no counterpart.
            found = point[0] > -1000 and point[0] < 40
            sign = 1 if request["from"] < request["to"] else -1
            place = [value + sign * step for value, step in zip(point, SHIFT_LPS, strict=True)]
            say(
                {
                    "id": number,
                    "done": True,
                    "point": place,
                    "score": 0.9 if found else 0.3,
                    "cycle_mm": 1.0,
                    "found": found,
                }
            )
        elif request["do"] == "similarity":
            import numpy as np

            scores = np.zeros((10, 12, 14), np.uint8)
            scores[4:6, 5:7, 6:8] = 95
            np.save(request["path"], scores)
            grid = {
                "size": [14, 12, 10],
                "spacing": [8.0] * 3,
                "origin": [-56.0, -48.0, -40.0],
                "direction": [1, 0, 0, 0, 1, 0, 0, 0, 1],
            }
            say({"id": number, "done": True, "path": request["path"], "grid": grid})
        else:
            say({"id": number, "done": True})
    return 0


def track(arguments):
    import numpy as np
    import SimpleITK as sitk

    first = next(number for number, word in enumerate(arguments) if word.startswith("-"))
    path, listed, *follow_ups = arguments[:first]
    folder = Path(arguments[arguments.index("-o") + 1])
    folder.mkdir()
    baseline = sitk.ReadImage(path)
    lesions = []
    for number, lesion in enumerate(json.loads(Path(listed).read_text(encoding="utf-8"))):
        if "mask" in lesion:
            mask = sitk.GetArrayFromImage(sitk.ReadImage(str(Path(listed).parent / lesion["mask"])))
            index = np.argwhere(mask).mean(0)[::-1]
            point = list(baseline.TransformContinuousIndexToPhysicalPoint(index.tolist()))
        else:
            point = lesion.get("point") or np.mean(lesion.get("box") or lesion["line"], 0).tolist()
        measured = "mask" in lesion
        record = {"name": lesion["name"], "point": point, "timepoints": []}
        if "mask" in lesion and sitk.GetArrayFromImage(sitk.ConnectedComponent(sitk.GetImageFromArray(mask))).max() > 1:
            record["note"] = f"{lesion['name']} has separate parts."
        if measured:
            record["measurement"] = {"longest_mm": 20.0, "short_axis_mm": 12.0, "volume_ml": 3.0}
        for turn, follow_up in enumerate(follow_ups):
            state = "not in the field of view" if lesion["name"].startswith("gone") else "found"
            entry = {"follow_up": turn, "state": state, "found": state == "found", "score": 0.8}
            if state == "found":
                entry["position"], entry["cycle_mm"] = shifted(point), 1.2
            if measured:
                entry["measurement"] = {"longest_mm": 20.0 - 8 * (turn + 1), "short_axis_mm": 8.0, "volume_ml": 1.0}
                image = sitk.ReadImage(follow_up)
                contour = sitk.Image(image.GetSize(), sitk.sitkUInt8)
                contour.CopyInformation(image)
                center = image.TransformPhysicalPointToIndex(shifted(point))
                contour[tuple(center)] = 1
                for kind in ("carried", "suggested"):
                    entry[kind] = f"{kind}-{number}-{turn}.mha"
                    sitk.WriteImage(contour, str(folder / entry[kind]))
            record["timepoints"].append(entry)
        lesions.append(record)
    (folder / "tracking.json").write_text(json.dumps({"lesions": lesions}))
    return 0


def main():
    behavior, *arguments = sys.argv[1:]
    if behavior == "live":
        return live()
    report("read", 5)
    report("matching", 50)
    if behavior == "slow":
        time.sleep(60)
    if behavior == "input":
        print(f"{arguments[1]} is no CT in Hounsfield units.", file=sys.stderr)
        return 2
    time.sleep(0.1)
    command = arguments.pop(0)
    return {"match": match, "template": template, "track": track}[command](arguments)


if __name__ == "__main__":
    sys.exit(main())

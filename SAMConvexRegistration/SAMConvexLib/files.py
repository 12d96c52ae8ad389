"""What a run writes and reads."""

import SimpleITK as sitk


def writeImage(image, path):
    # Uncompressed: the file lives for one run only.
    sitk.WriteImage(image, path, False)


def writePoints(points, path):
    with open(path, "w", encoding="utf-8", newline="\n") as file:
        file.write("x,y,z\n")
        file.writelines(f"{x:.6f},{y:.6f},{z:.6f}\n" for x, y, z in points)

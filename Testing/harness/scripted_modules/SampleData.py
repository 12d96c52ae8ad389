"""Stand-in for Slicer's SampleData module: keeps what is registered; a customDownloader is called, a URL never."""


class SampleDataSource:
    """What a module registered as one sample data set."""

    def __init__(self, **description):
        self.__dict__.update(description)


class SampleDataLogic:
    categories = {}  # identifier -> title
    sources = []

    @staticmethod
    def registerCustomSampleDataCategory(category, title=None, **kwargs):
        SampleDataLogic.categories[category] = title or category

    @staticmethod
    def registerCustomSampleDataSource(category="Custom", sampleName=None, **description):
        if sampleName is None:
            raise ValueError("sampleName is needed")
        sources = SampleDataLogic.sources
        sources[:] = [s for s in sources if (s.category, s.sampleName) != (category, sampleName)]
        sources.append(SampleDataSource(category=category, sampleName=sampleName, **description))

    def downloadSample(self, sampleName):
        nodes = self.downloadSamples(sampleName)
        return nodes[0] if nodes else None

    def downloadSamples(self, sampleName):
        for source in self.sources:
            if source.sampleName == sampleName:
                downloader = getattr(source, "customDownloader", None)
                if downloader is None:
                    raise RuntimeError(f"{sampleName}: the stand-in application downloads nothing")
                nodes = downloader(source)
                return list(nodes) if isinstance(nodes, (list, tuple)) else [nodes]
        raise RuntimeError(f"no sample data named {sampleName}")


def downloadSample(sampleName):
    return SampleDataLogic().downloadSample(sampleName)


def downloadSamples(sampleName):
    return SampleDataLogic().downloadSamples(sampleName)

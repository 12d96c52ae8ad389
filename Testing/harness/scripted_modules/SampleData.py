"""Stand-in for Slicer's SampleData module: as strict with descriptions as the real one, and without a network.

Only the button of a sample calls its ``customDownloader``; ``downloadSample`` looks for files. What shall have been
downloaded, a test puts into ``files``: {address: function that returns a node}.
"""

files = {}


class SampleDataSource:
    """What a module registered as one sample data set."""

    def __init__(
        self,
        sampleName=None,
        sampleDescription=None,
        uris=None,
        fileNames=None,
        nodeNames=None,
        checksums=None,
        loadFiles=None,
        customDownloader=None,
        thumbnailFileName=None,
        loadFileTypes=None,
        loadFileProperties=None,
        category="Custom",
    ):
        lists = dict(
            uris=uris,
            fileNames=fileNames,
            nodeNames=nodeNames,
            loadFiles=loadFiles,
            loadFileTypes=loadFileTypes,
            checksums=checksums,
        )
        if isinstance(uris, str):
            lists = {name: [value] for name, value in lists.items()}
        elif isinstance(uris, list | tuple):
            # One that is not given gets its length; only the file names have no default.
            for name, value in lists.items():
                if name != "fileNames" and (value is None or (name == "loadFileTypes" and isinstance(value, str))):
                    lists[name] = [value] * len(uris)
        lengths = {name: len(value) for name, value in lists.items()}
        if len(set(lengths.values())) > 1:
            raise ValueError(f"All fields of sample data source must have the same length: {lengths}")
        self.__dict__.update(lists)
        self.category = category
        self.sampleName = sampleName
        self.sampleDescription = sampleDescription or sampleName
        self.customDownloader = customDownloader
        self.thumbnailFileName = thumbnailFileName
        self.loadFileProperties = loadFileProperties or {}


class SampleDataLogic:
    categories = {}  # identifier -> title
    sources = []

    @staticmethod
    def registerCustomSampleDataCategory(category, title=None, **kwargs):
        SampleDataLogic.categories[category] = title or category

    @staticmethod
    def registerCustomSampleDataSource(category="Custom", sampleName=None, **description):
        source = SampleDataSource(sampleName=sampleName, category=category, **description)
        sources = SampleDataLogic.sources
        sources[:] = [s for s in sources if (s.category, s.sampleName) != (category, sampleName)]
        sources.append(source)

    def sourceForSampleName(self, sampleName):
        return next((source for source in self.sources if source.sampleName == sampleName), None)

    def downloadFromSource(self, source):
        """The nodes of a source's files; what cannot be had is left out."""
        return [files[uri]() for uri in source.uris if uri in files]

    def downloadSamples(self, sampleName):
        source = self.sourceForSampleName(sampleName)
        return self.downloadFromSource(source) if source else []

    def downloadSample(self, sampleName):
        return self.downloadSamples(sampleName)[0]

    def clickButton(self, sampleName):
        """What the button of a sample does in the module's panel."""
        source = self.sourceForSampleName(sampleName)
        return source.customDownloader(source) if source.customDownloader else self.downloadFromSource(source)


def downloadSample(sampleName):
    return SampleDataLogic().downloadSample(sampleName)


def downloadSamples(sampleName):
    return SampleDataLogic().downloadSamples(sampleName)

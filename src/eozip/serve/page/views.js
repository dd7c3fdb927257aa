// Two pictures, one over the other: on a map, or stretched where a store has no place or the browser no WebGL.

/** Whether MapLibre can draw here. */
export function canDrawMaps() {
  if (!window.maplibregl) return false;
  try {
    const context = document.createElement("canvas").getContext("webgl2");
    return Boolean(context);
  } catch {
    return false;
  }
}

const absolute = (address) => new URL(address, document.baseURI).href.replaceAll("%7B", "{").replaceAll("%7D", "}");

/** Tiles of two layers on two maps that move together. */
export class MapView {
  constructor(hosts, layer, onPoint, onHover) {
    this.hosts = hosts;
    this.layer = layer;
    this.onPoint = onPoint;
    this.onHover = onHover;
    this.maps = [this.#map(0), null];
  }

  #map(side) {
    const [west, south, east, north] = this.layer.bounds;
    const host = this.hosts[side];
    const map = new window.maplibregl.Map({
      container: host,
      style: { version: 8, sources: {}, layers: [{ id: "ground", type: "background", paint: { "background-color": "#8b939b" } }] },
      bounds: [[west, south], [east, north]],
      fitBoundsOptions: { padding: 12 },
      attributionControl: false,
      dragRotate: false,
      fadeDuration: 0,
      renderWorldCopies: false,
      maxZoom: 22,
      locale: { "Map.Title": side ? "Picture on the right" : "Picture on the left" },
    });
    map.touchZoomRotate.disableRotation();
    if (side === 0) map.addControl(new window.maplibregl.NavigationControl({ showCompass: false }), "top-left");
    map.on("click", (event) => this.onPoint({ lon: event.lngLat.lng, lat: event.lngLat.lat }));
    map.on("mousemove", (event) => this.onHover({ lon: event.lngLat.lng, lat: event.lngLat.lat }));
    map.on("idle", () => {
      if (map.getSource("store") && map.areTilesLoaded()) host.dataset.idle = String(Number(host.dataset.idle || 0) + 1);
    });
    map.on("move", () => this.#follow(side));
    return map;
  }

  #follow(side) {
    const other = this.maps[1 - side];
    if (!other || this.following) return;
    this.following = true;
    const map = this.maps[side];
    other.jumpTo({ center: map.getCenter(), zoom: map.getZoom() });
    this.following = false;
  }

  /** Draws a layer on a side; null takes the right side away. */
  show(side, layer, query) {
    if (!layer) {
      this.maps[side]?.remove();
      this.maps[side] = null;
      return;
    }
    if (!this.maps[side]) {
      this.maps[side] = this.#map(side);
      this.#follow(1 - side);
    }
    const map = this.maps[side];
    const tiles = absolute(`layers/${layer.number}/tiles/{z}/{x}/{y}.png?${query}`);
    const draw = () => {
      const source = map.getSource("store");
      if (source) return source.setTiles([tiles]);
      const zooms = { minzoom: layer.zooms[0], maxzoom: layer.zooms[1] };
      map.addSource("store", { type: "raster", tiles: [tiles], tileSize: 256, bounds: layer.bounds, ...zooms });
      const paint = { "raster-fade-duration": 0, "raster-resampling": "nearest" };
      map.addLayer({ id: "store", type: "raster", source: "store", paint });
    };
    delete this.hosts[side].dataset.idle;
    if (map.isStyleLoaded()) draw();
    else map.once("load", draw);
  }

  remove() {
    this.maps.forEach((map) => map?.remove());
    this.maps = [null, null];
  }
}

/** Stretched pictures of two layers. */
export class PlainView {
  constructor(hosts, layer, onPoint, onHover) {
    this.hosts = hosts;
    this.layer = layer;
    hosts.forEach((host, side) => {
      host.classList.add("plain");
      const image = document.createElement("img");
      image.alt = side ? "Picture on the right" : "Picture on the left";
      image.addEventListener("load", () => (host.dataset.idle = String(Number(host.dataset.idle || 0) + 1)));
      image.addEventListener("click", (event) => this.#tell(event, image, onPoint));
      image.addEventListener("mousemove", (event) => this.#tell(event, image, onHover));
      host.replaceChildren(image);
    });
  }

  #tell(event, image, then) {
    const [, , height, width] = this.layer.shape;
    const box = image.getBoundingClientRect();
    const scale = Math.min(box.width / width, box.height / height);
    const column = Math.floor((event.clientX - box.left - (box.width - width * scale) / 2) / scale);
    const row = Math.floor((event.clientY - box.top - (box.height - height * scale) / 2) / scale);
    if (row >= 0 && row < height && column >= 0 && column < width) then({ row, column });
  }

  show(side, layer, query) {
    const image = this.hosts[side].querySelector("img");
    delete this.hosts[side].dataset.idle;
    if (layer) image.src = `layers/${layer.number}/image.png?${query}`;
    else image.removeAttribute("src");
  }

  remove() {
    this.hosts.forEach((host) => {
      host.classList.remove("plain");
      host.replaceChildren();
    });
  }
}
